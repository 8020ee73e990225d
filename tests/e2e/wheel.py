"""Makes a wheel of each of the installed distributions named, as it was before it was installed: DIRECTORY NAME..."""

import importlib.metadata
import os
import sys
import zipfile

directory, *names = sys.argv[1:]
for name in names:
    distribution = importlib.metadata.distribution(name)
    tags = [line.split(":")[1].strip() for line in distribution.read_text("WHEEL").splitlines() if line.startswith("Tag:")]
    path = os.path.join(directory, "%s-%s-%s.whl" % (name.replace("-", "_"), distribution.version, tags[0]))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for file in distribution.files:
            installed = str(file)
            # Commands and what was compiled are the installer's.
            if installed.startswith("..") or installed.endswith(".pyc"):
                continue
            if installed.split("/")[-1] in ("INSTALLER", "REQUESTED", "direct_url.json"):
                continue
            wheel.write(file.locate(), installed)
