#!/usr/bin/env bash
# dist/delen_VERSION_ARCHITECTURE.deb, for the Debian or Ubuntu, and the processor, of this machine.
# EXTRAS: what of setup.py is installed. RUNTIME: what pip installs before, without what it needs,
# such as the ONNX Runtime of a Jetson's GPU (docs/jetson.md).
set -euo pipefail
cd "$(dirname "$0")/.."
export EXTRAS=${EXTRAS:-daemon,audio} RUNTIME=${RUNTIME:-}
work=build/deb/source
rm -rf build/deb
mkdir -p "$work" dist
cp -R delen api policies power multiexit_models constraints setup.py pyproject.toml MANIFEST.in \
    README.md LICENSE deb/debian "$work"
version=$(python3 -c 'exec(open("delen/version.py").read()); print(VERSION)')
maintainer=$(sed -n 's/^Maintainer: //p' deb/debian/control)
cat > "$work/debian/changelog" << END
delen ($version) unstable; urgency=medium

  * CHANGELOG.md of the source says what changed.

 -- $maintainer  $(date -R ${SOURCE_DATE_EPOCH:+-d "@$SOURCE_DATE_EPOCH"})
END
(cd "$work" && dpkg-buildpackage --build=binary --no-sign)
mv build/deb/delen_*.deb dist/
