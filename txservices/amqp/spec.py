"""AMQP's methods, from the table in ``wire/spec.py``, in the form that txamqp reads.

txamqp would read it from an XML file, which its wheel does not contain.
"""

from __future__ import annotations

from functools import cache

from txamqp import spec as txspec

from txservices.wire.spec import BASIC_CLASS, CLASSES, FRAME_END, METHODS, PROPERTIES


@cache
def shared_spec() -> txspec.Spec:
    """The one ``Spec`` of this process: to make it takes milliseconds."""
    return txamqp_spec()


def txamqp_spec() -> txspec.Spec:
    """The table as txamqp wants it: classes, methods and fields that its ``AMQClient`` builds its channels from."""
    spec = txspec.Spec(9, 1, "txservices.wire.spec")
    spec.constants.add(txspec.Constant(spec, "frame-end", FRAME_END, None, []))
    klasses: dict[int, txspec.Class] = {}
    for name, number in CLASSES.items():
        klasses[number] = txspec.Class(spec, name, number, "channel", [])
        spec.classes.add(klasses[number])
    for method in METHODS.values():
        klass = klasses[method.class_id]
        short = method.name.partition(".")[2]
        entry = txspec.Method(klass, short, method.method_id, method.content, [], bool(method.responses), "", [])
        for index, (field, kind) in enumerate(method.fields):
            # txamqp looks up a default by the type, and knows only AMQP's
            known = "shortstr" if kind in ("octets", "text") else kind
            entry.fields.add(txspec.Field(field, index, known, []))
        klass.methods.add(entry)
    for method in METHODS.values():
        entry = spec.parse_method(method.name)
        entry.responses = [spec.parse_method(answer) for answer in method.responses]
        for answer in entry.responses:
            answer.response = True
    for index, (field, kind) in enumerate(PROPERTIES):
        klasses[BASIC_CLASS].fields.add(txspec.Field(field, index, kind, []))
    spec.post_load()
    return spec
