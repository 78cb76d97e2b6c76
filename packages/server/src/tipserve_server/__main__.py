"""`python -m tipserve_server`: the program, where the environment's scripts are not on PATH."""

from tipserve_server.launcher import main

main()
