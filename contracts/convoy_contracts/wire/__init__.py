"""The partner channel's wire format: ``convoy.partner.v1``, generated from ``partner.proto``.

    partner_pb2, partner_pb2_grpc   generated; never edited by hand (``partner.proto`` says how)
    ticket                          what ``invite`` prints and ``join`` reads
    proof                           what a joining node signs
    statuses                        problems as google.rpc.Status, and back

The extra ``convoy-contracts[wire]`` brings grpcio and protobuf; only this package of the pure libraries may import them,
and nothing else in ``convoy_contracts`` imports this package. Generate again, from the folder ``contracts``, with
``python -m grpc_tools.protoc -I . --python_out=. --pyi_out=. --grpc_python_out=. convoy_contracts/wire/partner.proto``
(grpcio-tools 1.81.1). Field numbers and meanings of version 1 never change; another version is another package.
"""

from typing import Final

PROTOCOLS: Final = (1,)
"""The versions of the channel that this release speaks, newest last."""
