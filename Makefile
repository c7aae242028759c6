# `make help` lists the targets. Everything that is built for use outside the clone goes to a cache, see CACHE below.

SHELL := /usr/bin/env bash -o pipefail -e
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

export GOTOOLCHAIN := local

include hack/versions.env

# ---- What may be set from outside -----------------------------------------------------------------------------------

# The version that release-manifests stamps, and where it writes to (a repository as clusterctl reads it).
VERSION ?= v0.1.0
IMAGE ?= ghcr.io/cluster-api-provider-libvirt/cluster-api-provider-libvirt
RELEASE_DIR ?= out/repository/infrastructure-libvirt/$(VERSION)

# What `make quickstart` makes. LIBVIRT_URI uses an existing libvirt daemon instead of a private one; the variables of the
# cluster template work too (docs/reference/template-variables.md).
CONTROL_PLANE_MACHINE_COUNT ?= 1
WORKER_MACHINE_COUNT ?= 1
QUICKSTART_FLAGS ?= --control-planes $(CONTROL_PLANE_MACHINE_COUNT) --workers $(WORKER_MACHINE_COUNT)

# Which tests `make test` runs, and further flags of `go test`.
TEST_PACKAGES ?= ./...
TEST_FLAGS ?=

# Further flags of `make test-e2e`, for example --ginkgo.focus='on one host'.
E2E_FLAGS ?=

# Which tests `make test-faults` and `make test-guests` run.
FAULTS ?= .
GUESTS ?= $(shell grep -l '^//go:build guests' -r internal --include=*_test.go | xargs grep -oh '^func Test[A-Za-z0-9]*' | cut -d ' ' -f 2 | paste -sd '|')

# How many of them boot at the same time: an emulated guest keeps a processor busy.
GUESTS_AT_ONCE ?= 2

# How long `make fuzz` runs each target, and which.
FUZZTIME ?= 10m
FUZZ ?= .

# ---- Tools ----------------------------------------------------------------------------------------------------------

# The cache is shared by all clones on a machine; what is in it is keyed by what it was made from.
CACHE := $(or $(CAPL_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/cluster-api-provider-libvirt)
TOOLS := $(CACHE)/tools/$(shell { go env GOVERSION; cat hack/tools/go.mod hack/tools/go.sum hack/tools/golangci-lint/*.go; } | sha256sum | cut -c 1-16)
# Where the system's libvirt client library is too old, see hack/libvirt-client.sh.
export PKG_CONFIG_PATH := $(CACHE)/libvirt-client$(addprefix :,$(PKG_CONFIG_PATH))
CONTROLLER_GEN := $(TOOLS)/controller-gen
GOLANGCI_LINT := $(TOOLS)/golangci-lint
CRD_REF_DOCS := $(TOOLS)/crd-ref-docs
GOTESTSUM := $(TOOLS)/gotestsum

# Programs of others, built from their modules.
BUILD := hack/build/build.sh
BUILT = $(shell $(BUILD) --bin-dir)
TEST_PROGRAMS := etcd kube-apiserver kube-controller-manager kubectl kustomize \
  capi-core-manager capi-kubeadm-bootstrap-manager capi-kubeadm-control-plane-manager clusterctl

##@ General

.PHONY: help
help: ## Show this help
	@awk 'BEGIN {FS = ":.*## "} \
	  /^##@/ {printf "\n%s\n", substr($$0, 5)} \
	  /^[a-z0-9-]+:.*## / {printf "  %-20s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: packages
packages: ## Install the Debian packages that building and testing need (as root)
	hack/install-packages.sh build libvirt image test
	hack/libvirt-client.sh

.PHONY: clean
clean: ## Remove what was built inside the clone
	rm -rf bin out

##@ Code

.PHONY: build
build: kubectl-libvirt ## Build the manager, the lab program and the kubectl plugin into bin/
	go build -o bin/manager .
	go build -o bin/lab ./cmd/lab

.PHONY: kubectl-libvirt
kubectl-libvirt: ## Build the kubectl plugin into bin/
	go build -o bin/kubectl-libvirt ./cmd/kubectl-libvirt

# It loads the libvirt of the host that it runs on.
.PHONY: host-agent
host-agent: ## Build the agent for KVM hosts into bin/
	go build -trimpath -tags libvirt_dlopen,netgo,osusergo -ldflags '-s -w -X main.version=$(VERSION)' -o bin/host-agent ./cmd/host-agent

.PHONY: generate
generate: $(CONTROLLER_GEN) ## Generate deepcopy functions
	$(CONTROLLER_GEN) object:headerFile=hack/boilerplate.go.txt paths=./api/...

.PHONY: manifests
manifests: $(CONTROLLER_GEN) ## Generate CRDs, RBAC and webhook configurations from markers
	$(CONTROLLER_GEN) crd:crdVersions=v1 paths=./api/... output:crd:dir=config/crd/bases
	$(CONTROLLER_GEN) rbac:roleName=manager-role webhook paths=. paths=./internal/controllers/... paths=./internal/webhooks/... \
	  output:rbac:dir=config/rbac output:webhook:dir=config/webhook

.PHONY: reference
reference: $(CRD_REF_DOCS) ## Generate the reference of the API
	$(CRD_REF_DOCS) --source-path=api/v1beta1 --config=hack/api-reference.yaml --renderer=markdown \
	  --output-path=docs/reference/api.md --log-level=WARN

.PHONY: lint
lint: $(GOLANGCI_LINT) ## Run the linters over the Go code
	hack/install-packages.sh build
	hack/libvirt-client.sh
	$(GOLANGCI_LINT) run

.PHONY: verify
verify: lint ## Check that generated files are up to date, and everything that can be checked without running the code
	hack/install-packages.sh verify
	hack/verify.sh

##@ Test

.PHONY: test-programs
test-programs: ## Build what the tests run: etcd, Kubernetes' and Cluster API's control planes, a guest's image
	$(BUILD) $(TEST_PROGRAMS)
	hack/node-image/build.sh base

.PHONY: test
test: packages test-programs $(GOTESTSUM) ## Run all tests but the end-to-end ones; the last line sums up
	KUBEBUILDER_ASSETS=$(BUILT) CAPL_BIN_DIR=$(BUILT) GOTESTSUM=$(GOTESTSUM) hack/test.sh $(TEST_FLAGS) $(TEST_PACKAGES)

.PHONY: test-faults
test-faults: packages test-programs $(GOTESTSUM) host-agent ## Run the long tests of hosts that fail, and of their neighbours
	KUBEBUILDER_ASSETS=$(BUILT) CAPL_BIN_DIR=$(BUILT) GOTESTSUM=$(GOTESTSUM) GOTESTSUM_FORMAT=standard-verbose HOST_AGENT=$(CURDIR)/bin/host-agent \
	  hack/test.sh -tags faults -timeout 60m -run '$(FAULTS)' ./internal/host/ ./internal/hostagent/ ./internal/controllers/

.PHONY: fuzz
fuzz: packages ## Fuzz the parsers of images and the makers of XML, each for FUZZTIME; the last line sums up
	FUZZTIME=$(FUZZTIME) hack/fuzz.sh '$(FUZZ)'

.PHONY: test-guests
test-guests: packages test-programs $(GOTESTSUM) ## Run the long tests that boot guests
	KUBEBUILDER_ASSETS=$(BUILT) CAPL_BIN_DIR=$(BUILT) GOTESTSUM=$(GOTESTSUM) GOTESTSUM_FORMAT=standard-verbose \
	  hack/test.sh -tags guests -timeout 60m -p 1 -parallel $(GUESTS_AT_ONCE) -run '$(GUESTS)' ./internal/...

.PHONY: test-e2e
test-e2e: packages $(GOTESTSUM) build host-agent ## Run the end-to-end tests: real clusters of real machines
	hack/install-packages.sh bgp
	GOTESTSUM=$(GOTESTSUM) GOTESTSUM_FORMAT=standard-verbose hack/test.sh -tags e2e -timeout 180m ./test/e2e/... -args -ginkgo.v $(E2E_FLAGS)

.PHONY: test-ingress
test-ingress: ## Run the end-to-end test of the flavor metallb-nginx: a site on a public address, by traffic
	$(MAKE) test-e2e E2E_FLAGS="--ginkgo.focus='A site on a public address'"

# FIRST_SITE_WORKERS makes workers on the first site, too.
.PHONY: test-two-sites
test-two-sites: ## Run the end-to-end test of the flavor two-sites: two hosts, linked by WireGuard, by traffic
	$(MAKE) test-e2e E2E_FLAGS="--ginkgo.focus='A cluster on two sites'"

.PHONY: test-bgp
test-bgp: ## Run the end-to-end test of the flavor calico-bgp: Services by BGP, on one host
	$(MAKE) test-e2e E2E_FLAGS="--ginkgo.focus='A site by BGP'"

##@ Lab

.PHONY: node-image
node-image: packages ## Build the node image into the cache and print its path
	hack/node-image/build.sh node

.PHONY: quickstart
quickstart: packages build ## Make a management plane, a KVM host and a Kubernetes cluster on this machine
	bin/lab quickstart $(QUICKSTART_FLAGS)

.PHONY: quickstart-clean
quickstart-clean: build ## Remove what quickstart made
	bin/lab quickstart clean

##@ Release

.PHONY: release-manifests
release-manifests: ## Write a release into RELEASE_DIR, as clusterctl reads it
	$(BUILD) kustomize
	VERSION=$(VERSION) IMAGE=$(IMAGE) KUSTOMIZE=$(BUILT)/kustomize hack/release.sh $(RELEASE_DIR)

.PHONY: clusterctl-config
clusterctl-config: release-manifests ## Write out/clusterctl.yaml, which tells clusterctl of the release in RELEASE_DIR
	hack/clusterctl-config.sh $(RELEASE_DIR) >out/clusterctl.yaml

# ---- How the tools are built ----------------------------------------------------------------------------------------

$(CONTROLLER_GEN): TOOL_PACKAGE := sigs.k8s.io/controller-tools/cmd/controller-gen
$(GOTESTSUM): TOOL_PACKAGE := gotest.tools/gotestsum
$(CRD_REF_DOCS): TOOL_PACKAGE := github.com/elastic/crd-ref-docs
$(GOLANGCI_LINT): TOOL_PACKAGE := ./golangci-lint

$(CONTROLLER_GEN) $(CRD_REF_DOCS) $(GOLANGCI_LINT) $(GOTESTSUM):
	cd hack/tools && GOWORK=off CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o $@ $(TOOL_PACKAGE)
