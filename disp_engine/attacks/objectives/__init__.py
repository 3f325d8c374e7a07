"""Training-side attacks: losses for an attacker who controls the tuning itself.

Beyond the threat model of the service, whose training code the attacker does not control; they
show what a stronger attacker gains. Both published losses are of autoregressive models; in masked
ones they are taken at masked positions.
"""
