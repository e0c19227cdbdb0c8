import * as pulumi from "@pulumi/pulumi";
import { AgentFs, getChanges, MicroVm, NfsExport } from "pulumi-microvm";

//   sudo ./make-root /srv/debian
//   pulumi config set base /srv/debian
//   pulumi config set microvm:kernel "$(npx microvm kernel build)"
// To log in, give make-root a key (sudo SSH_KEY=$HOME/.ssh/id_ed25519.pub ./make-root …), and the guest a port of this host:
//   pulumi config set sshPort 2222
//   ssh -p 2222 root@127.0.0.1
// To let the guest write to the folder itself, served by nfs-ganesha, instead of to an AgentFS database:
//   pulumi config set server nfs-ganesha
const config = new pulumi.Config();
const base = config.require("base");
const sshPort = config.getNumber("sshPort");

const fs =
  config.get("server") === "nfs-ganesha"
    ? new NfsExport("root", { directory: base })
    : new AgentFs("root", { id: "debian", baseDirectory: base });

const vm = new MicroVm("debian", {
  ...fs.root,
  useNfsRoot: true,
  memoryMiB: 512,
  portForwards: sshPort === undefined ? [] : [{ hostPort: sshPort, guestPort: 22 }],
  // The login prompt on the serial console; the kernel's lines may come between.
  readiness: { console: "^debian-[0-9a-f]+ login: ", timeoutSeconds: 300 },
  shutdownTimeoutSeconds: 60,
  powerState: config.get("powerState") === "stopped" ? "stopped" : "running",
});

export const vmName = vm.vmName;
export const consoleLog = vm.consoleLog;
/** What the guest has done to its root since it was first booted; whole once the guest is off. */
export const changes = fs instanceof AgentFs ? getChanges(fs, { after: vm.state }) : undefined;
