#!/usr/bin/env bash
# Prints the configuration that tells clusterctl of the release in a directory.
# Usage: hack/clusterctl-config.sh DIRECTORY >clusterctl.yaml
set -euo pipefail

release=$(cd "${1:?the directory of the release}" && pwd)
cat <<END
providers:
- name: libvirt
  type: InfrastructureProvider
  url: $release/infrastructure-components.yaml
END
