//! One compartment: lifecycle, devices, agent client, streams, logs, control socket.
