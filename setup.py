"""One installable package, `mailqueue`, made from apps/mailqueue."""

import re
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent
SOURCE = HERE / "apps" / "mailqueue"
VERSION = re.search(r'^__version__ = "(.+)"$', (SOURCE / "version.py").read_text(encoding="utf-8"), re.M)
assert VERSION, "apps/mailqueue/version.py has no version"

PACKAGES = sorted(
    ".".join(("mailqueue", *init.parent.relative_to(SOURCE).parts)) for init in SOURCE.rglob("__init__.py")
)
DEMO = ["aiosmtpd>=1.4.6"]
CELERY = ["celery>=5.4"]
SES = ["boto3>=1.34"]
ANYMAIL = ["django-anymail>=15.2"]
DKIM = ["dkimpy[ed25519]>=1.1"]
SMIME = ["cryptography>=45"]
PGP = ["python-gnupg>=0.5.4"]


class BuildWithManifest(build_py):
    """The manifest lies at the top of the repository; the package carries a copy."""

    def run(self) -> None:
        """Build, then copy."""
        super().run()
        if not self.editable_mode:
            shutil.copy(HERE / "plugin_manifest.json", Path(self.build_lib) / "mailqueue")


setup(
    name="mailqueue",
    version=VERSION.group(1),
    description="An outbound mail queue for py4web and web2py: swap the mailer in one line",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="BSD-3-Clause",
    cmdclass={"build_py": BuildWithManifest},
    packages=PACKAGES,
    package_dir={"mailqueue": "apps/mailqueue"},
    package_data={
        "mailqueue": ["py.typed", "templates/**/*", "static/**/*", "translations/**/*", "web2py/plugin/**/*"]
    },
    python_requires=">=3.10",
    install_requires=[
        "py4web>=1.20250901.0",
        "pydal>=20250629.0",
        "yatl",
        "css-inline>=0.17",
        "email-validator>=2.2",
        "dnspython>=2.6",  # email-validator brings it anyway
        "click",
    ],
    extras_require={
        "demo": DEMO,
        "celery": CELERY,
        "ses": SES,
        "anymail": ANYMAIL,
        "dkim": DKIM,
        "smime": SMIME,
        "pgp": PGP,
        "test": [
            *DEMO,
            *CELERY,
            *SES,
            *ANYMAIL,
            *DKIM,
            *SMIME,
            *PGP,
            "redis",
            "pytest>=8",
            "pytest-cov>=7",
            "pytest-xdist",
            "hypothesis",
            # The second reader of what we write, independent of Python's: Rust's mailparse. No wheels before.
            "fast-mail-parser>=0.10; python_version >= '3.11'",
            "psycopg2-binary",
            "pymysql",
            "axe-playwright-python>=0.1.8",
            "mypy",
            "ruff",
            "build",
        ],
    },
    entry_points={"console_scripts": ["mailqueue=mailqueue.cli:main"]},
    classifiers=[
        "License :: OSI Approved :: BSD License",
        "Programming Language :: Python :: 3 :: Only",
        "Topic :: Communications :: Email",
    ],
)
