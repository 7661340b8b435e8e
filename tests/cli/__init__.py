"""Tests of the command line: in this process where that will do, else in processes of their own."""
