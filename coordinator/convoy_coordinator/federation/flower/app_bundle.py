"""The app bundle that every run is started with: a name, a version and no code.

Both ends run what is installed on them. Flower still wants a bundle, and its SHA-256 is what a
node's allow-list and a contract can name. The bytes depend on this file only: stored, not
compressed, fixed dates, so the same release of Convoy gives the same hash everywhere. What may
never change within one ``VERSION``: a single byte.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.supercore.primitives.asymmetric_ed25519 import create_message_to_sign

PUBLISHER: Final = "convoy"
NAME: Final = "convoy-federation"
VERSION: Final = "1.0.0"
APP_ID: Final = f"@{PUBLISHER}/{NAME}"

_PYPROJECT = f"""\
[project]
name = "{NAME}"
version = "{VERSION}"
description = "Names the protocol. Nodes run the application that is installed on them."
license = "Apache-2.0"

[tool.flwr.app]
publisher = "{PUBLISHER}"

[tool.flwr.app.components]
serverapp = "convoy_federation:app"
clientapp = "convoy_federation:app"

[tool.flwr.app.config]
run = ""
"""

_NO_CODE = """\
raise ImportError("This bundle holds no code. Start the node with convoy-node; it runs what is
installed.")
"""


@dataclass(frozen=True, slots=True)
class AppBundle:
    """A Flower app bundle and who vouches for it.

    ``verifications`` is what a stock ``flower-supernode --trusted-entities`` checks: signatures by
    key id.
    """

    content: bytes
    verifications: dict[str, str] = field(default_factory=dict)

    @property
    def sha256(self) -> str:
        """The hash that allow-lists name, in hex."""
        return hashlib.sha256(self.content).hexdigest()

    def signed(self, key_id: str, key: Ed25519PrivateKey, *, at: int) -> AppBundle:
        """Return the bundle with a signature over its hash and the time.

        Args:
            key_id: the name under which the partner trusts the key.
            at: Unix time in seconds.
        """
        digest = hashlib.sha256(self.content).digest()
        signature = key.sign(create_message_to_sign(digest, at))
        text = urlsafe_b64encode(signature).decode().rstrip("=")
        statement = json.dumps({"signature": text, "signed_at": at})
        return AppBundle(self.content, {**self.verifications, "valid_license": "Valid", key_id: statement})


def app_bundle() -> AppBundle:
    """Build the bundle of this release."""
    return bundle_of({"convoy_federation/__init__.py": _NO_CODE.encode(), "pyproject.toml": _PYPROJECT.encode()})


def bundle_of(files: Mapping[str, bytes]) -> AppBundle:
    """Build a bundle of some files, in their order; the same files give the same bytes."""
    manifest = "\n".join(
        f"{name},{hashlib.sha256(content).hexdigest()},{8 * len(content)}" for name, content in files.items()
    )
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in {**files, ".info/CONTENT": manifest.encode()}.items():
            about = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            about.external_attr = 0o644 << 16
            about.create_system = 3
            archive.writestr(about, content)
    return AppBundle(buffer.getvalue())
