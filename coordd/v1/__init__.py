"""Generated from protos/coordd/v1 by `make gen`; not edited by hand."""
