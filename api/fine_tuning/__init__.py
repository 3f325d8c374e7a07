"""The same jobs under OpenAI's names."""
