# Says who this interpreter is. Run with -I: nothing of the app is on the path.
import json
import platform
import sys
import sysconfig

try:
    import ensurepip
    import venv

    makes = True
except ImportError:
    makes = False
libc = "-".join(platform.libc_ver())
print(
    "\n" + sys.argv[1],
    json.dumps(
        {
            "path": sys.executable,
            "version": list(sys.version_info[:3]),
            "implementation": sys.implementation.name,
            "platform": sysconfig.get_platform() + " " + libc,
            "makes_environments": makes,
        }
    ),
    flush=True,
)
