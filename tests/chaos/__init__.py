"""`make chaos`: a real deployment under faults and kills, beside a model that knows the truth.

    model.py      changes the objects of some buckets, and remembers every state of every key
    s3_server.py  shows them over HTTP, with faults (s3_objects.py, s3_faults.py)
    site.py       two hosts that watch these buckets, Redis with replicas and sentinels, a consumer
    mischief.py   kills and freezes what runs, at random moments
    oracle.py     judges what was announced by what really happened
    run.py        puts these together

`docs/guarantees.md` says what it shows. The same ``--seed`` makes the same changes and the same
plan of kills; when each of them meets which process is up to the machine.
"""
