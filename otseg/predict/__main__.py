"""Segment pictures: `python -m otseg.predict`, or on many GPUs `accelerate launch -m otseg.predict`"""
from otseg.predict.command import main

if __name__ == '__main__': main()
