"""Zoo models as models of transformers: importing this package registers them. Nothing else but train/bench imports it.

import zoo.hf
model = AutoModelForCausalLM.from_pretrained("folder")      # config.json says model_type zoo; nothing of the folder is executed
model.generate(ids, attention_mask=mask, num_beams=3)

config.py     ZooConfig: config.json, which holds the model's mapping
model.py      ZooForCausalLM: zoo.Model with transformers' arguments
cache.py      ZooCache: the state, as generate carries it
harness.py    lm-evaluation-harness with these models
"""

from transformers import AutoConfig, AutoModelForCausalLM

from zoo.hf.cache import ZooCache
from zoo.hf.config import ZooConfig
from zoo.hf.model import ZooForCausalLM

__all__ = ["ZooCache", "ZooConfig", "ZooForCausalLM"]

AutoConfig.register(ZooConfig.model_type, ZooConfig)
AutoModelForCausalLM.register(ZooConfig, ZooForCausalLM)
