"""What a person looks at: report.html, measures.html, their figures, tables and claims."""
