"""What tests share. Fixtures are in `tests/conftest.py`; here is what they are made of.

Without a server
    fakes            the ports in memory: storage, states, vault, and a `Site` that scans with them
    sites            a `Site` ready to scan, and what it announced
    listing_bodies   bodies of listings as different S3 servers write them

Servers, real ones
    servers          Redis and S3 of the test run, with fresh buckets
    redis_topology   a Redis master with replicas and sentinels, to be failed over
    postgres         PostgreSQL, where it is installed
    ceph             a cluster with an S3 gateway, where it is installed
    infisical_server an Infisical with faults to switch on
    canned_http      an HTTP server that answers as a test says
    tls_front        TLS before a server that has none, with certificates

What is stored, what is queued
    engine_buckets   buckets in Redis as the control plane leaves them
    notifications    the queue as consumers find it, each message against the schema
    older_monitor    what the older monitor does to Redis
    meddling         a connection to Redis on which something happens between two questions

The product from outside
    commands         `manage.py …` in the test's own process
    processes        whole process trees: start, kill, and see them gone
    product          `manage.py runmonitor` of an installation of its own
    deployment       `deploy/` and the `Dockerfile`, run without an engine
    api_client       a program with a token
    browser          Chromium
    doc_blocks       the commands on the pages of the documentation

Waiting
    waiting          `eventually`: for a condition, with a deadline
"""
