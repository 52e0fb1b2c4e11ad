"""Checkpoints of Hugging Face in and out: the same weights under the names of either library, exact to the bit.

    model = zoo.convert.checkpoint.import_folder("path/or/hub-id")
    zoo.convert.checkpoint.export_folder(model, "folder")

`hf` is the checkpoint's side (config.json, its tensors and their names), `zoo` the side of this project.

A family (families/*.py) says in plain data what a `model_type` is in the zoo. To add one, add its file; it is found by being there:

    MODEL_TYPES        the model_type strings of config.json that it reads; the first is the one it writes
    MODELS             (optional) the models of configs/models, by file name, that its class in transformers computes
    DEFAULTS           keys of config.json that it reads, with the defaults of the class
    UNREAD             (optional) keys that the class has and doesn't read, or which say nothing beside others
    to_zoo(hf)         config.json (a plain mapping) as a model mapping of the zoo; ConfigError for what the zoo can't compute
    to_hf(config)      a ModelConfig as config.json; ConfigError where the family has no such model. It need only say what the sizes of
                       one of its models are: that to_zoo(to_hf(config)) is the same model is checked for every family, and what differs
                       is named in the error
    rules(config)      the weight map (weight_map.py); rules about tensors that the model has not are passed over

    weight_map.py      rules, and the account of every tensor on both sides
    weight_ops.py      the steps of a rule
    hf_folder.py       config.json, .safetensors, shards, the tokenizer: files only; nothing is executed or unpickled
    checkpoint.py      such a folder as a model of the zoo, and a model of the zoo as such a folder
    model_folder.py    a model from any folder: a run's, a checkpoint's, or one of Hugging Face
    byte_tokenizer.py  the tokenizer of byte models as a tokenizer.json
    shared/            what several families have in common: layers.py (lists of blocks <-> blocks and a pattern), dense.py (Llama's
                       names), rope.py (rotary positions), experts.py, latent.py, hybrid.py, state_spaces.py, delta.py,
                       shared_transformer.py
"""
