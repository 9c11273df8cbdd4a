"""The worker on a real Kubernetes: `make kube`, or `python -m tests.kube --help`.

::

    site        the place of a scenario: cluster, broker, namespace, releases
    cluster     kubectl, helm and programs in the cluster's network; brings a cluster up and down
    image       the worker's image: given, or built by a container engine
    kafka       Apache Kafka as a pod, whose data outlives it
    release     one `helm install` with topics and a consumer group of its own
    feed        a producer; runs in the cluster's network
    observe     the audit and the results' times; runs in the cluster's network
    verdicts    decides whether a scenario held (pure)
    report      lines, table, JSON
    registry    the list of scenarios, in order
    scenarios/  the scenarios themselves: one file a subject

A scenario is a function in `scenarios/` with the decorator `scenario`. With `under=` it gets a
running release that has records to label all the time, shared with the other scenarios under the
same name; without, it gets the site and installs what it needs::

    @scenario(under="at_least_once", order=30)
    def rollout(release: Release) -> Happened: ...

    @scenario(order=200)
    def missing_secret(site: Site) -> Happened: ...

It raises `Failed` if something did not happen. The runner audits afterwards.
"""
