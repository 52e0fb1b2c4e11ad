"""Checkpoints of Hugging Face in and out: the same weights in another library's names, exact to the bit.

    model = zoo.convert.checkpoint.import_folder("path/or/hub-id")
    zoo.convert.checkpoint.export_folder(model, "folder")

A family (families/*.py) says in plain data what a `model_type` is in our terms. To add one, add its file; it is found by being there:

    MODEL_TYPES        the model_type strings of config.json that it reads; the first is the one it writes
    to_zoo(hf)         their config.json (a plain mapping) as one of our model mappings; ConfigError for what we can't compute
    to_hf(config)      our ModelConfig as their config.json; ConfigError where it is no member of the family. It need only say what a
                       member's sizes are: that to_zoo(to_hf(config)) is the same model is checked for every family, and what differs is
                       named in the error
    rules(config)      the weight map (maps.py); rules about tensors that this model has not are passed over

    maps.py            rules, steps and the accounting of both sides
    layers.py          lists of blocks <-> blocks and a pattern; where each block's weights are
    dense.py           what the Llama-shaped families share: names, attention, gated channel mixers
    rope.py            rotary positions in their words and ours
    folder.py          config.json, .safetensors, shards, the tokenizer: files only; nothing is executed or unpickled
    checkpoint.py      such a folder as our model, and our model as such a folder
"""
