"""What the Runner and the program need beyond mmengine: configs made ready to run, checks of data, hooks, inference."""
