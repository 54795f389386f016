"""Families of candidates, one family a file; import the one you need, e.g. ``from joulefront.spaces.convnet import Convnet``."""
