"""Models: those of providers, the embedded one, and the scripted one."""
