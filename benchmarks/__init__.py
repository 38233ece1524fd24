"""What the service costs, measured on the machine at hand: `make bench`, or `make bench ARGS="send streams"`.

Each part starts the real service and the fake model vendor as processes of their own and puts load on them from a
third one. What is gated is CPU time per operation, which a busy machine cannot distort.
"""
