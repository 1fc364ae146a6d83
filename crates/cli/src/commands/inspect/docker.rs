//! The fields of `inspect` as Docker's client declares them (28.2), so that a template which names one works here although
//! nothing sets it.

use crate::template::Record;

/// `container.InspectResponse`.
pub const CONTAINER: Record = Record {
    text: &[
        "Id",
        "Created",
        "Path",
        "Image",
        "ResolvConfPath",
        "HostnamePath",
        "HostsPath",
        "LogPath",
        "Name",
        "Driver",
        "Platform",
        "MountLabel",
        "ProcessLabel",
        "AppArmorProfile",
    ],
    number: &["RestartCount"],
    list: &["Args", "ExecIDs"],
    pointer: &["SizeRw", "SizeRootFs", "ImageManifestDescriptor"],
    parts: &[
        ("State", &STATE),
        ("HostConfig", &HOST_CONFIG),
        ("Config", &CONFIG),
        ("GraphDriver", &GRAPH_DRIVER),
        ("NetworkSettings", &NETWORK_SETTINGS),
    ],
    lists_of: &[("Mounts", &MOUNT)],
    ..Record::EMPTY
};

/// `image.InspectResponse`.
pub const IMAGE: Record = Record {
    text: &[
        "Id",
        "Parent",
        "Comment",
        "Created",
        "Container",
        "DockerVersion",
        "Author",
        "Architecture",
        "Variant",
        "Os",
        "OsVersion",
    ],
    number: &["Size", "VirtualSize"],
    list: &["RepoTags", "RepoDigests", "Manifests"],
    pointer: &["ContainerConfig"],
    parts: &[
        ("Config", &IMAGE_CONFIG),
        ("GraphDriver", &GRAPH_DRIVER),
        ("RootFS", &ROOT_FS),
        ("Descriptor", &DESCRIPTOR),
    ],
    ..Record::EMPTY
};

const STATE: Record = Record {
    text: &["Status", "Error", "StartedAt", "FinishedAt"],
    number: &["Pid", "ExitCode"],
    flag: &["Running", "Paused", "Restarting", "OOMKilled", "Dead"],
    pointer: &["Health"],
    ..Record::EMPTY
};

const CONFIG: Record = Record {
    text: &[
        "Hostname",
        "Domainname",
        "User",
        "Image",
        "WorkingDir",
        "MacAddress",
        "StopSignal",
    ],
    flag: &[
        "AttachStdin",
        "AttachStdout",
        "AttachStderr",
        "Tty",
        "OpenStdin",
        "StdinOnce",
        "ArgsEscaped",
        "NetworkDisabled",
    ],
    list: &["Env", "Cmd", "Entrypoint", "OnBuild", "Shell"],
    dict: &["ExposedPorts", "Volumes", "Labels"],
    pointer: &["Healthcheck", "StopTimeout"],
    ..Record::EMPTY
};

const IMAGE_CONFIG: Record = Record {
    text: &["User", "WorkingDir", "StopSignal"],
    flag: &["ArgsEscaped"],
    list: &["Env", "Cmd", "Entrypoint", "OnBuild", "Shell"],
    dict: &["ExposedPorts", "Volumes", "Labels"],
    pointer: &["Healthcheck"],
    ..Record::EMPTY
};

/// With the fields of `container.Resources`, which Go embeds.
const HOST_CONFIG: Record = Record {
    text: &[
        "ContainerIDFile",
        "NetworkMode",
        "VolumeDriver",
        "CgroupnsMode",
        "IpcMode",
        "Cgroup",
        "PidMode",
        "UTSMode",
        "UsernsMode",
        "Runtime",
        "Isolation",
        "CgroupParent",
        "CpusetCpus",
        "CpusetMems",
    ],
    number: &[
        "OomScoreAdj",
        "ShmSize",
        "CpuShares",
        "Memory",
        "NanoCpus",
        "BlkioWeight",
        "CpuPeriod",
        "CpuQuota",
        "CpuRealtimePeriod",
        "CpuRealtimeRuntime",
        "KernelMemory",
        "KernelMemoryTCP",
        "MemoryReservation",
        "MemorySwap",
        "CpuCount",
        "CpuPercent",
        "IOMaximumIOps",
        "IOMaximumBandwidth",
    ],
    flag: &[
        "AutoRemove",
        "Privileged",
        "PublishAllPorts",
        "ReadonlyRootfs",
    ],
    list: &[
        "Binds",
        "VolumesFrom",
        "CapAdd",
        "CapDrop",
        "Dns",
        "DnsOptions",
        "DnsSearch",
        "ExtraHosts",
        "GroupAdd",
        "Links",
        "SecurityOpt",
        "BlkioWeightDevice",
        "BlkioDeviceReadBps",
        "BlkioDeviceWriteBps",
        "BlkioDeviceReadIOps",
        "BlkioDeviceWriteIOps",
        "Devices",
        "DeviceCgroupRules",
        "DeviceRequests",
        "Ulimits",
        "Mounts",
        "MaskedPaths",
        "ReadonlyPaths",
    ],
    dict: &[
        "PortBindings",
        "Annotations",
        "StorageOpt",
        "Tmpfs",
        "Sysctls",
    ],
    pointer: &["MemorySwappiness", "OomKillDisable", "PidsLimit", "Init"],
    pair: &["ConsoleSize"],
    parts: &[
        ("LogConfig", &LOG_CONFIG),
        ("RestartPolicy", &RESTART_POLICY),
    ],
    named: &[
        ("DNS", "Dns"),
        ("DNSOptions", "DnsOptions"),
        ("DNSSearch", "DnsSearch"),
        ("CPUShares", "CpuShares"),
        ("NanoCPUs", "NanoCpus"),
        ("CPUPeriod", "CpuPeriod"),
        ("CPUQuota", "CpuQuota"),
        ("CPURealtimePeriod", "CpuRealtimePeriod"),
        ("CPURealtimeRuntime", "CpuRealtimeRuntime"),
        ("CPUCount", "CpuCount"),
        ("CPUPercent", "CpuPercent"),
    ],
    ..Record::EMPTY
};

const LOG_CONFIG: Record = Record {
    text: &["Type"],
    dict: &["Config"],
    ..Record::EMPTY
};

const RESTART_POLICY: Record = Record {
    text: &["Name"],
    number: &["MaximumRetryCount"],
    ..Record::EMPTY
};

const MOUNT: Record = Record {
    text: &[
        "Type",
        "Name",
        "Source",
        "Destination",
        "Driver",
        "Mode",
        "Propagation",
    ],
    flag: &["RW"],
    ..Record::EMPTY
};

const GRAPH_DRIVER: Record = Record {
    text: &["Name"],
    dict: &["Data"],
    ..Record::EMPTY
};

const ROOT_FS: Record = Record {
    text: &["Type"],
    list: &["Layers"],
    ..Record::EMPTY
};

const DESCRIPTOR: Record = Record {
    text: &["mediaType", "digest", "artifactType"],
    number: &["size"],
    list: &["urls", "data"],
    dict: &["annotations"],
    pointer: &["platform"],
    named: &[
        ("MediaType", "mediaType"),
        ("Digest", "digest"),
        ("ArtifactType", "artifactType"),
        ("Size", "size"),
        ("URLs", "urls"),
        ("Data", "data"),
        ("Annotations", "annotations"),
        ("Platform", "platform"),
    ],
    ..Record::EMPTY
};

const NETWORK_SETTINGS: Record = Record {
    text: &[
        "Bridge",
        "SandboxID",
        "SandboxKey",
        "LinkLocalIPv6Address",
        "EndpointID",
        "Gateway",
        "GlobalIPv6Address",
        "IPAddress",
        "IPv6Gateway",
        "MacAddress",
    ],
    number: &[
        "LinkLocalIPv6PrefixLen",
        "GlobalIPv6PrefixLen",
        "IPPrefixLen",
    ],
    flag: &["HairpinMode"],
    list: &["SecondaryIPAddresses", "SecondaryIPv6Addresses"],
    dict: &["Ports", "Networks"],
    ..Record::EMPTY
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template::{Functions, Template, Value};

    #[track_caller]
    fn shows(record: &Record, data: &str, template: &str, expected: &str) {
        let data = record.complete(serde_json::from_str::<Value>(data).unwrap());
        let template = Template::parse(template).unwrap();
        match template.render(&data, Functions::Data) {
            Ok(text) => assert_eq!(text, expected),
            Err(error) => assert_eq!(error.to_string(), expected),
        }
    }

    /// What docker 28.2 printed of an image and a container whose engine sent `{}` for each of these.
    #[test]
    fn a_field_that_nothing_sets_is_its_zero_value() {
        let image = r#"{"Id":"sha256:abc","Config":{},"GraphDriver":{"Data":null}}"#;
        shows(
            &IMAGE,
            image,
            "{{.Config.Labels}}|{{.Config.Entrypoint}}|{{.Config.User}}|{{.Config.WorkingDir}}|{{.Config.ExposedPorts}}|{{.Config.Volumes}}",
            "map[]|[]|||map[]|map[]",
        );
        shows(
            &IMAGE,
            image,
            "{{.Config.StopSignal}}|{{.Config.OnBuild}}|{{.Config.Healthcheck}}|{{.RepoTags}}|{{.GraphDriver.Data}}|{{.Variant}}",
            "|[]|<nil>|[]|map[]|",
        );
        let container = r#"{"Id":"abc","Config":{"Labels":null},"HostConfig":{"NanoCpus":5}}"#;
        shows(
            &CONTAINER,
            container,
            "{{.HostConfig.Binds}}|{{.HostConfig.PidsLimit}}|{{.HostConfig.ConsoleSize}}|{{.State.Health}}|{{.NetworkSettings.IPAddress}}|{{.HostConfig.RestartPolicy.Name}}",
            "[]|<nil>|[0 0]|<nil>||",
        );
        shows(
            &CONTAINER,
            container,
            "{{.HostConfig.NanoCPUs}}|{{.HostConfig.NanoCpus}}|{{len .Config.Labels}}|{{.Config.Labels}}|{{range .Config.Env}}x{{else}}none{{end}}",
            "5|5|0|map[]|none",
        );
        shows(
            &CONTAINER,
            container,
            "{{json .HostConfig.PidsLimit}}|{{json .Config.Labels}}|{{json .Config.Entrypoint}}",
            "null|null|null",
        );
    }

    #[test]
    fn a_map_takes_a_key_that_it_has_not_and_a_struct_does_not() {
        let container = r#"{"Config":{"Labels":{"a":"b"}},"HostConfig":{}}"#;
        shows(
            &CONTAINER,
            container,
            "{{.Config.Labels.a}}|{{.Config.Labels.foo}}|{{.Config.Volumes.foo}}|{{if .Config.Labels.foo}}y{{else}}n{{end}}|{{.Config.Labels.foo.bar}}",
            "b|<no value>|<no value>|n|<no value>",
        );
        shows(
            &CONTAINER,
            container,
            "{{.Config.Foo}}",
            "template: :1:9: executing \"\" at <.Config.Foo>: map has no entry for key \"Foo\"",
        );
        // Docker's image has no such fields since 28.2, its container has.
        shows(
            &IMAGE,
            "{}",
            "{{.Config.Domainname}}",
            "template: :1:9: executing \"\" at <.Config.Domainname>: map has no entry for key \"Domainname\"",
        );
    }

    #[test]
    fn the_json_form_is_what_was_read() {
        let data = r#"{"Config":{"Labels":null,"Env":[]},"Mounts":[{"Source":"/x"}]}"#;
        shows(&CONTAINER, data, "{{json .}}", data);
        let shown = CONTAINER.complete(serde_json::from_str(data).unwrap());
        assert_eq!(shown.to_json(), data);
    }
}
