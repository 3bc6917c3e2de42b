"""A small server that speaks OpenAI's Chat Completions protocol without a model behind it.

It stands in when there is no API key, and it is the double in the tests: what a real model does on a bad day
(`script.py` has the list of faults) can be asked of it by name.

    with OfflineModel(scriptable=True, seconds_per_answer=0.05) as model:
        model.script([{"fault": "status", "status": 429, "retry_after": 0.1, "times": 1}])
        client = openai.OpenAI(base_url=model.base_url, api_key="none")
"""

from offline_model.model import OfflineModel
from offline_model.script import BadRule

__all__ = ["BadRule", "OfflineModel"]
