"""The guard server: one model's answers, guarded, over OpenAI's chat completions.

It holds the engine and therefore lives with the workers; the gateway knows nothing of it.
"""
