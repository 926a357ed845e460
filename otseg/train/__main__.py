"""Train: `python -m otseg.train`, or on many GPUs `accelerate launch -m otseg.train`"""
from otseg.train.command import main

if __name__ == '__main__': main()
