/** The seed's Python example, as its document prints it, with a client generated from our OpenAPI document. */

import { rm } from "node:fs/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { isInNamespace, runInNamespace } from "../lab/namespace.js";
import { pythonClient, whyNoPythonClient } from "../lab/python-client.js";
import { mustRun } from "../lab/run-process.js";
import { Seed, whyNoSeed } from "./seed.js";

const title = "the seed's Python client";
const isAskedFor = process.env["MICROVM_CLIENTS"] === "1";
const reason =
  (isAskedFor ? undefined : "MICROVM_CLIENTS is not 1: npm run test:clients") ??
  whyNoPythonClient() ??
  whyNoSeed();

const EXAMPLE = `import serverapi
from serverapi.rest import ApiException

# Configure API client
configuration = serverapi.Configuration()
configuration.host = "http://localhost:7000"

# Create API instance
api_client = serverapi.ApiClient(configuration)
api_instance = serverapi.DefaultApi(api_client)

# Start VM with NFS root
request = serverapi.StartVMRequest(
    vm_name="python-vm",
    use_nfs_root=True,
    nfs_server="127.0.0.1",
    nfs_port=11111,
    nfs_path="/"
)

try:
    response = api_instance.v1_vms_post(request)
    print(f"VM started: {response.vm_name}")
    print(f"VM IP: {response.ip}")
except ApiException as e:
    print(f"Exception: {e}")
`;

/** What else a program does with a VM. */
const MORE = `import serverapi
api = serverapi.DefaultApi(serverapi.ApiClient(serverapi.Configuration(host="http://localhost:7000")))
print([vm.vm_name for vm in api.v1_vms_get().vms], api.v1_vms_name_get("python-vm").root_evidence)
print(api.v1_vms_name_cmd_post("python-vm", serverapi.VmCommandRequest(cmd="echo hello")).output)
files = [serverapi.VmFileUploadRequestFilesInner(path="a.txt", content="text")]
api.v1_vms_name_files_post("python-vm", serverapi.VmFileUploadRequest(files=files))
print(api.v1_vms_name_files_get("python-vm", "a.txt").files[0].content)
print(api.v1_vms_name_patch("python-vm", serverapi.V1VmsNamePatchRequest(status="paused")).success)
print(api.v1_vms_name_delete("python-vm").success)
try:
    api.v1_vms_name_get("python-vm")
except serverapi.exceptions.NotFoundException as e:
    print(e.data.error.message)
`;

if (reason !== undefined && isAskedFor) {
  it(`${title} can be tried here`, () => expect.unreachable(reason));
} else if (reason !== undefined) {
  describe(title, () => it.skip(`skipped: ${reason}`, () => undefined));
} else if (!isInNamespace()) {
  it(`${title}, in a network namespace of its own`, async () => {
    // Made here, where there is a network.
    const client = await pythonClient("serverapi");
    try {
      process.env["PYTHONPATH"] = client;
      expect(runInNamespace(__filename)).toBe(0);
    } finally {
      await rm(client, { recursive: true, force: true });
    }
  });
} else {
  describe(title, () => {
    let seed: Seed;
    beforeAll(async () => {
      seed = await Seed.open();
    });
    afterAll(async () => await seed.close());

    it("Example 4 starts a VM", async () => {
      const said = await mustRun("python3", ["-c", EXAMPLE]);
      expect(said).toBe("VM started: python-vm\nVM IP: 10.0.2.15/24\n");
      expect(await seed.rootOf("python-vm")).toMatch(/ \/ nfs .*port=11111/);
    });

    it("does all that the API offers", async () => {
      const said = await mustRun("python3", ["-c", MORE]);
      expect(said).toBe("['python-vm'] proved\nhello\n\ntext\nTrue\nTrue\nthere is no VM \"python-vm\"\n");
    });
  });
}
