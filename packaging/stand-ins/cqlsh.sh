#!/bin/sh
# The program that pip left names the Python of the machine that pip ran on.
exec python3 /opt/cqlsh/bin/cqlsh "$@"
