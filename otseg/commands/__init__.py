"""The shell commands; nothing imports them"""
