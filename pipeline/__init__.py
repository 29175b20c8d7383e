"""AlexNet (Krizhevsky, Sutskever, Hinton 2012), reproduced as a pipeline."""
