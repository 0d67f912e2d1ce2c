"""Push notifications: which webhooks may be called, how, and by whom."""
