"""`sami doctor`: is this machine ready, and if not, what is to be done?"""
