"""Formats whose schemas are in a schema registry: Avro, JSON Schema and Protobuf.

The only package that imports fastavro and protoc. It is imported only where an option needs it.
"""
