/*
Copyright 2026 The cluster-api-provider-libvirt Authors.

Licensed under the Apache License, Version 2.0 (the "License");
you may not use this file except in compliance with the License.
You may obtain a copy of the License at

    http://www.apache.org/licenses/LICENSE-2.0

Unless required by applicable law or agreed to in writing, software
distributed under the License is distributed on an "AS IS" BASIS,
WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
See the License for the specific language governing permissions and
limitations under the License.
*/

package v1beta1

// Every condition is set by the controller of its kind, in one place. A reason is a stable word for programs; the
// message tells a person what is the matter and what to do. docs/troubleshooting.md is keyed by these reasons.

// Condition types and reasons that several kinds share.
const (
	// ReadyCondition sums up the other conditions of the object. Cluster API mirrors it to the Machine's and the
	// Cluster's InfrastructureReady.
	ReadyCondition = "Ready"

	// DeletingCondition is there and true from the request to delete the object until it is gone. Its reason and message say
	// what the deletion waits for.
	DeletingCondition = "Deleting"

	// DeletingReason says that the deletion is making progress: nothing to do.
	DeletingReason = "Deleting"

	// NotYetReason says that it isn't known yet, because an earlier step isn't done: see the other conditions.
	NotYetReason = "NotYet"

	// ReadyReason says that all is well.
	ReadyReason = "Ready"

	// HostUnreachableReason says that the libvirt daemon of a host doesn't answer. See to the host, its network and
	// LibvirtHost.spec.uri; work goes on by itself once it answers.
	HostUnreachableReason = "HostUnreachable"

	// HostBusyReason says that a host doesn't answer for the moment, or that enough calls wait for it already. It is tried
	// again within seconds; if it goes on, see what slows the host down, its storage first of all.
	HostBusyReason = "HostBusy"

	// LibvirtErrorReason says that libvirt refused a request with the error in the message. It is tried again with
	// growing intervals.
	LibvirtErrorReason = "LibvirtError"

	// InternalErrorReason says that a request to the management cluster failed. It is tried again with growing
	// intervals.
	InternalErrorReason = "InternalError"
)

// Conditions and reasons of a LibvirtHost.
const (
	// HostConnectedCondition is true while the libvirt daemon answers.
	HostConnectedCondition = "Connected"

	// HostConnectedReason says that the libvirt daemon answers.
	HostConnectedReason = "Connected"

	// HostConnectingReason says that the first connection is under way: wait.
	HostConnectingReason = "Connecting"

	// HostCredentialsNotFoundReason says that the Secret of spec.credentialsRef doesn't exist or lacks a key: create
	// it in the namespace of the LibvirtHost.
	HostCredentialsNotFoundReason = "CredentialsNotFound"

	// HostAuthenticationFailedReason says that the host, or its identity, was refused: correct the credentials or the
	// known hosts in the Secret of spec.credentialsRef.
	HostAuthenticationFailedReason = "AuthenticationFailed"

	// HostInvalidURIReason says that spec.uri can't be used: correct it as the message says.
	HostInvalidURIReason = "InvalidURI"

	// HostOtherHostReason says that spec.uri leads to another host than the one that the machines are on: correct it. If
	// the host was replaced, remove status.hostUUID, and its machines count as missing.
	HostOtherHostReason = "OtherHost"

	// HostStorageReadyCondition is true while the pools of spec.storage are there and active.
	HostStorageReadyCondition = "StorageReady"

	// HostStorageReadyReason says that the pools of spec.storage are there and active.
	HostStorageReadyReason = "StorageReady"

	// HostStoragePoolNotFoundReason says that a pool of spec.storage doesn't exist: define it on the host or correct
	// spec.storage.
	HostStoragePoolNotFoundReason = "StoragePoolNotFound"

	// HostStoragePoolConflictReason says that the seed pool is also the image pool or the disk pool: name another
	// one in spec.storage.seedPool.
	HostStoragePoolConflictReason = "StoragePoolConflict"

	// HostOrphansAbsentCondition is true while every domain and volume of ours on the host has its LibvirtMachine. It
	// doesn't count for Ready.
	HostOrphansAbsentCondition = "OrphansAbsent"

	// HostOrphansAbsentReason says that no orphans were found.
	HostOrphansAbsentReason = "OrphansAbsent"

	// HostOrphansFoundReason says that there are domains or volumes of ours on the host that no LibvirtMachine stands
	// for: the message names them. Remove them on the host, or set spec.orphanPolicy to Delete if no other management
	// cluster uses the host.
	HostOrphansFoundReason = "OrphansFound"

	// HostInUseReason says that the host can't go because machines or cluster networks are still on it: delete
	// those first.
	HostInUseReason = "HostInUse"
)

// Conditions and reasons of a LibvirtCluster.
const (
	// ClusterHostsAvailableCondition is true while at least one host that spec.hostSelector selects is ready.
	ClusterHostsAvailableCondition = "HostsAvailable"

	// ClusterHostsAvailableReason says that hosts are available; the message counts them.
	ClusterHostsAvailableReason = "HostsAvailable"

	// ClusterNoHostSelectedReason says that spec.hostSelector selects no LibvirtHost: label the hosts or correct the
	// selector.
	ClusterNoHostSelectedReason = "NoHostSelected"

	// ClusterNoHostReadyReason says that none of the selected hosts is ready: the message has the reason of each.
	ClusterNoHostReadyReason = "NoHostReady"

	// ClusterNetworkReadyCondition is true while the node network is up on every ready host. Whether a bridge of
	// spec.network.bridge is there can't be asked of a host: a machine's DomainReady condition tells.
	ClusterNetworkReadyCondition = "NetworkReady"

	// ClusterNetworkReadyReason says that the node network is up on every ready host.
	ClusterNetworkReadyReason = "NetworkReady"

	// ClusterNetworkConflictReason says that a range, a name or a bridge of the node network is in use on a host by
	// something else, or its nodeRange by a DHCP server or another cluster: the message names it. Change spec.network in a
	// new cluster or remove the other one.
	ClusterNetworkConflictReason = "NetworkConflict"

	// ClusterNetworkNotFoundReason says that a host has no libvirt network of the name in spec.network.name: define it
	// there, or deselect the host.
	ClusterNetworkNotFoundReason = "NetworkNotFound"

	// ClusterNetworkInactiveReason says that the libvirt network of spec.network.name is stopped on a host: start it.
	ClusterNetworkInactiveReason = "NetworkInactive"

	// ClusterGatewayReadyCondition is true while the agents of the hosts that have the node network lead packets in and out
	// as spec.network.ingress and spec.network.apiServerAccess say. It is there with spec.network.forwarding HostAgent only.
	// Machines don't wait for it.
	ClusterGatewayReadyCondition = "GatewayReady"

	// ClusterGatewayAppliedReason says that the agents have applied what is wanted.
	ClusterGatewayAppliedReason = "Applied"

	// ClusterGatewayAgentNotSeenReason says that no agent has reported on a host that the message names: run host-agent
	// install there.
	ClusterGatewayAgentNotSeenReason = "AgentNotSeen"

	// ClusterGatewayAgentSilentReason says that the agent of a host hasn't reported for five minutes: see to it with
	// systemctl status cluster-api-host-agent there. The rules that it made stay in force.
	ClusterGatewayAgentSilentReason = "AgentSilent"

	// ClusterGatewayNotAppliedReason says that the agent of a host is yet to apply what is wanted: wait some seconds.
	ClusterGatewayNotAppliedReason = "NotApplied"

	// ClusterGatewayRefusedReason says that the agent of a host doesn't apply what it was told, because it can't read it or
	// because that leads out of the cluster: upgrade the older one of controller and agent.
	ClusterGatewayRefusedReason = "Refused"

	// ClusterGatewayClashReason says that another network on a host already lets connections in at the same external
	// address and port: change one of the two.
	ClusterGatewayClashReason = "Clash"

	// ClusterGatewayAddressMissingReason says that no host of the cluster has an external address: add it to an interface
	// of a host, or correct spec.network.
	ClusterGatewayAddressMissingReason = "AddressMissing"

	// ClusterGatewayBlockedReason says that something on a host that isn't ours, a firewall as a rule, stops what is
	// forwarded: the message names table and chain. Have it accept that.
	ClusterGatewayBlockedReason = "Blocked"

	// ClusterGatewayFailedReason says that the agent of a host couldn't write its rules, for the reason in the message. It
	// tries again by itself.
	ClusterGatewayFailedReason = "Failed"

	// ClusterSitesLinkedCondition is true while the hosts of the cluster are linked with each other, so that machines on
	// several sites reach each other. It is there with spec.network.siteLink only. Machines don't wait for it. Besides the
	// reasons below it has those of GatewayReady that keep an agent from making the link.
	ClusterSitesLinkedCondition = "SitesLinked"

	// ClusterSitesLinkedReason says that every two hosts are linked.
	ClusterSitesLinkedReason = "Linked"

	// ClusterSitesWireGuardNotSetReason says that a LibvirtHost doesn't say how the others reach it: set its
	// spec.wireGuard.
	ClusterSitesWireGuardNotSetReason = "WireGuardNotSet"

	// ClusterSitesSharedRangeReason says that two hosts have the same range, so that a link can't lead to both: give one
	// of them a failure domain with a subnet of its own, or deselect it. One that wasn't in use before isn't used.
	ClusterSitesSharedRangeReason = "SharedRange"

	// ClusterSitesAddressConflictReason says that two hosts have the same address and port in spec.wireGuard, that the
	// address lies in a range of the cluster itself, or that two hosts have no address: correct the LibvirtHosts.
	ClusterSitesAddressConflictReason = "AddressConflict"

	// ClusterSitesKeyNotToldReason says that the agent of a host hasn't told its public key yet: wait some seconds.
	ClusterSitesKeyNotToldReason = "KeyNotTold"

	// ClusterSitesKeyConflictReason says that two hosts have the same key, as clones of one machine do: remove the key on
	// one of them, and its agent makes another.
	ClusterSitesKeyConflictReason = "KeyConflict"

	// ClusterSitesNotConnectedReason says that two hosts haven't heard of each other lately: let the UDP port through the
	// firewalls between them, and see to spec.wireGuard of the LibvirtHosts.
	ClusterSitesNotConnectedReason = "NotConnected"

	// ClusterKubeconfigConflictReason says that a Secret has the name of the kubeconfig for outside and isn't ours: delete
	// or rename it.
	ClusterKubeconfigConflictReason = "KubeconfigConflict"

	// ClusterEndpointNotSetReason says that neither spec.controlPlaneEndpoint nor Cluster.spec.controlPlaneEndpoint
	// is set: set one of them.
	ClusterEndpointNotSetReason = "ControlPlaneEndpointNotSet"

	// ClusterInvalidNetworkReason says that spec.network can't be used: correct it as the message says.
	ClusterInvalidNetworkReason = "InvalidNetwork"

	// ClusterMachinesLeftReason says that the deletion waits for the LibvirtMachines of the cluster to go.
	ClusterMachinesLeftReason = "MachinesLeft"
)

// Conditions and reasons of a LibvirtMachine.
const (
	// MachineBootstrapDataReadyCondition is true once the bootstrap data of the Machine is there and can be used.
	MachineBootstrapDataReadyCondition = "BootstrapDataReady"

	// MachineBootstrapDataReadyReason says that the bootstrap data is there.
	MachineBootstrapDataReadyReason = "BootstrapDataReady"

	// MachineClusterNotReadyReason says that the cluster's infrastructure isn't provisioned yet: see the
	// LibvirtCluster.
	MachineClusterNotReadyReason = "ClusterInfrastructureNotReady"

	// MachineWaitingForBootstrapDataReason says that the bootstrap provider hasn't written the bootstrap data yet. A
	// worker waits here until the control plane is initialized.
	MachineWaitingForBootstrapDataReason = "WaitingForBootstrapData"

	// MachineBootstrapSecretNotFoundReason says that the Secret of Machine.spec.bootstrap.dataSecretName is missing
	// or has no value.
	MachineBootstrapSecretNotFoundReason = "BootstrapSecretNotFound"

	// MachineBootstrapFormatUnsupportedReason says that the bootstrap data has a format that isn't served: set
	// spec.format of the KubeadmConfig to cloud-config or ignition.
	MachineBootstrapFormatUnsupportedReason = "BootstrapFormatUnsupported"

	// MachineBootstrapDataInvalidReason says that the bootstrap data isn't what its format promises: correct the
	// KubeadmConfig as the message says.
	MachineBootstrapDataInvalidReason = "BootstrapDataInvalid"

	// MachineBootstrapSucceededCondition is true once the machine's bootstrap has succeeded, false once it has failed, and
	// unknown while that can't be told. Only a failure counts for Ready.
	MachineBootstrapSucceededCondition = "BootstrapSucceeded"

	// MachineBootstrapSucceededReason says that the bootstrap succeeded: the guest has the file by which Cluster API's
	// bootstrap providers say so.
	MachineBootstrapSucceededReason = "BootstrapSucceeded"

	// MachineNodeRegisteredReason says that the Node has registered, and that the guest was never asked or didn't tell how
	// its bootstrap went.
	MachineNodeRegisteredReason = "NodeRegistered"

	// MachineBootstrapFailedReason says that the bootstrap failed: the message has its last lines. It isn't tried again in
	// the same machine: correct the cause and delete the Machine, or let a MachineHealthCheck do so.
	MachineBootstrapFailedReason = "BootstrapFailed"

	// MachineBootstrapRunningReason says that the guest answers and its bootstrap is under way: wait.
	MachineBootstrapRunningReason = "BootstrapRunning"

	// MachineGuestRestartedReason says that the guest was started anew before anybody asked how its bootstrap went, which
	// took away what tells: wait for the Node. If it doesn't register, look into the guest and delete the Machine.
	MachineGuestRestartedReason = "GuestRestarted"

	// MachineGuestAgentNotConnectedReason says that no guest agent answers, so that nothing is known of the bootstrap. It
	// comes up with the guest; an image without qemu-guest-agent does well, too.
	MachineGuestAgentNotConnectedReason = "GuestAgentNotConnected"

	// MachineGuestAgentRefusesReason says that the guest agent is told to refuse to read files: allow guest-file-open,
	// guest-file-seek, guest-file-read and guest-file-close in the image to learn of the bootstrap.
	MachineGuestAgentRefusesReason = "GuestAgentRefuses"

	// MachineBootstrapDataRemovedCondition is true once the bootstrap data is gone from the host. It doesn't count for
	// Ready.
	MachineBootstrapDataRemovedCondition = "BootstrapDataRemoved"

	// MachineBootstrapDataRemovedReason says that the bootstrap data is gone from the host.
	MachineBootstrapDataRemovedReason = "BootstrapDataRemoved"

	// MachineWaitingForNodeReason says that the bootstrap data stays on the host until the Node has registered.
	MachineWaitingForNodeReason = "WaitingForNode"

	// MachinePlacedCondition is true once a host was chosen.
	MachinePlacedCondition = "Placed"

	// MachinePlacedReason says that a host was chosen.
	MachinePlacedReason = "Placed"

	// MachineNoHostFitsReason says that no host can take the machine: the message has the reason of each.
	MachineNoHostFitsReason = "NoHostFits"

	// MachineWaitingForSlotReason says that the machine waits for a slot with retained disks: until the machine that
	// holds it is gone, or until the host that has the disks can take it. The message names both.
	MachineWaitingForSlotReason = "WaitingForSlot"

	// MachineSlotConflictReason says that another machine has the same slot with retained disks: delete one of the two
	// Machines.
	MachineSlotConflictReason = "SlotConflict"

	// MachineHostNotFoundReason says that the LibvirtHost of spec.hostName doesn't exist: create it again, or delete
	// the Machine once you are sure that the host is gone for good.
	MachineHostNotFoundReason = "HostNotFound"

	// MachineStoragePoolNotFoundReason says that the deletion waits for a storage pool of the LibvirtHost's spec.storage
	// that doesn't exist on the host, so that the volumes in it can't be removed: define it there again.
	MachineStoragePoolNotFoundReason = "StoragePoolNotFound"

	// MachineImageReadyCondition is true once the image is on the host.
	MachineImageReadyCondition = "ImageReady"

	// MachineImageReadyReason says that the image is on the host.
	MachineImageReadyReason = "ImageReady"

	// MachineImageImportingReason says that the image is being moved to the host: the message has the progress.
	MachineImageImportingReason = "ImageImporting"

	// MachineImageNotFoundReason says that spec.image names nothing that exists: correct it.
	MachineImageNotFoundReason = "ImageNotFound"

	// MachineImageRefusedReason says that the image isn't what spec.image promises, isn't safe to use, or comes from where
	// the administrator lets none come from: the message has the finding.
	MachineImageRefusedReason = "ImageRefused"

	// MachineImageImportFailedReason says that the transfer failed; it is tried again by itself.
	MachineImageImportFailedReason = "ImageImportFailed"

	// MachineDomainReadyCondition is true while the domain runs.
	MachineDomainReadyCondition = "DomainReady"

	// MachineDomainRunningReason says that the domain runs.
	MachineDomainRunningReason = "DomainRunning"

	// MachineDomainNotCreatedReason says that there is no domain yet: the other conditions say what it waits for.
	MachineDomainNotCreatedReason = "DomainNotCreated"

	// MachineDomainCrashedReason says that the domain's hypervisor process died or the guest panicked. It is started
	// again by itself, with growing intervals, unless spec.restartPolicy is Never.
	MachineDomainCrashedReason = "DomainCrashed"

	// MachineDomainShutoffReason says that the domain was shut off. It is started again by itself, with growing
	// intervals, unless spec.restartPolicy says otherwise: then start it on the host or delete the Machine.
	MachineDomainShutoffReason = "DomainShutoff"

	// MachineDomainPausedReason says that somebody paused the domain: resume it on the host.
	MachineDomainPausedReason = "DomainPaused"

	// MachineDomainIOErrorReason says that the domain stands still because the host's disk failed a write: make room
	// in the storage pool, and it is resumed by itself, once. If it stands still again, make more room or repair the
	// disk, then resume the domain on the host.
	MachineDomainIOErrorReason = "DomainIOError"

	// MachineDeviceNotOfferedReason says that the machine was to get a PCI device that its host doesn't offer, any more or
	// at all: add it to spec.pciDevices of the LibvirtHost, or delete the Machine.
	MachineDeviceNotOfferedReason = "DeviceNotOffered"

	// MachineShuttingDownReason says that the machine is being deleted and its guest was asked to shut down: the plug is
	// pulled when spec.shutdown.timeoutSeconds have passed.
	MachineShuttingDownReason = "ShuttingDown"

	// MachineDomainMissingReason says that the domain was there and is gone, which only somebody else can have done.
	// It is not made again, because its disks and its bootstrap data belong to the past: delete the Machine, or let a
	// MachineHealthCheck do so.
	MachineDomainMissingReason = "DomainMissing"

	// MachineDomainMigratedReason says that the domain was migrated away to a host that isn't known here. It is not
	// started where it was, because it may run elsewhere: create a LibvirtHost for the host that it went to, migrate it
	// back, or delete the Machine.
	MachineDomainMigratedReason = "DomainMigrated"

	// MachineDomainConflictReason says that a domain or a volume on the host has the name or the UUID of this machine
	// and isn't ours: the message names it. Rename or remove it. It is also said of a machine that was created with the
	// spec.providerID of another one: make the Machine anew without it.
	MachineDomainConflictReason = "DomainConflict"

	// MachineStartFailedReason says that the hypervisor didn't start the domain, for the reason in the message. It is
	// tried again with growing intervals.
	MachineStartFailedReason = "StartFailed"

	// MachineAddressesExhaustedReason says that every node address of the network is taken: delete machines, widen
	// spec.network.nodeRange of an existing network, or make a cluster with a larger spec.network.cidr.
	MachineAddressesExhaustedReason = "AddressesExhausted"

	// MachineAddressConflictReason says that the machine's address, spec.address, belongs to something else too: the
	// message names it. Remove that, or delete the Machine.
	MachineAddressConflictReason = "AddressConflict"

	// MachineNetworkNotFoundReason says that the host has no libvirt network of a name in spec.interfaces: define it there,
	// or delete the Machine to have it placed elsewhere.
	MachineNetworkNotFoundReason = "NetworkNotFound"

	// MachineNetworkInactiveReason says that a libvirt network of spec.interfaces is stopped on the host: start it.
	MachineNetworkInactiveReason = "NetworkInactive"

	// MachineNetworkNotAllowedReason says that a libvirt network of spec.interfaces was made for a cluster of another
	// namespace: name another one in a new LibvirtMachineTemplate.
	MachineNetworkNotAllowedReason = "NetworkNotAllowed"

	// MachineBridgeNotFoundReason says that the host has no bridge of a name in spec.interfaces: make it there, or delete
	// the Machine to have it placed elsewhere.
	MachineBridgeNotFoundReason = "BridgeNotFound"

	// MachineInvalidInterfacesReason says that spec.interfaces doesn't go with the node network of the cluster: the message
	// says why. Correct it in a new LibvirtMachineTemplate.
	MachineInvalidInterfacesReason = "InvalidInterfaces"

	// MachineWaitingForIPAddressReason says that an IPAM provider hasn't answered an IPAddressClaim yet: the message names
	// it. If it goes on, see whether the provider of the pool runs.
	MachineWaitingForIPAddressReason = "WaitingForIPAddress"

	// MachineIPAddressClaimFailedReason says that an IPAddressClaim wasn't granted, or isn't the machine's own: the message
	// has the provider's reason, for example that the pool is exhausted.
	MachineIPAddressClaimFailedReason = "IPAddressClaimFailed"

	// MachineInvalidIPAddressReason says that an IPAM provider gave an address that the machine can't have: the message
	// says why. Correct the pool, then delete the Machine.
	MachineInvalidIPAddressReason = "InvalidIPAddress"
)
