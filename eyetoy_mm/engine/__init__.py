"""What the Runner and the tools need beyond mmengine: configs made ready to run, hooks, errors for the command line."""
