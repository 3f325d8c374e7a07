"""What the families in LLaVA's layout share: SigLIP, a projector, and LLaDA behind them.

It is no family itself; each family adds its labels, its objective and its config.
"""
