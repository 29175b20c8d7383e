"""The nets that came before and after AlexNet, each from the layer table of its own paper, one family a file."""
