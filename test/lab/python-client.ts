/** A Python client of our API, made from openapi.yaml by openapi-generator (a jar of Maven Central's), with what it needs of PyPI. */

import { cp, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { cached } from "./cache.js";
import { isOnPath } from "./programs.js";
import { mustRun } from "./run-process.js";

const GENERATOR = "7.14.0";
const DOCUMENT = resolve(__dirname, "../../openapi.yaml");

/** Why none can be made here, as the reason of a skipped test; undefined when one can. */
export function whyNoPythonClient(): string | undefined {
  const missing = ["java", "mvn", "python3", "pip"].find((program) => !isOnPath(program));
  return missing === undefined ? undefined : `${missing} is not installed`;
}

/**
 * Makes the client.
 *
 * @param packageName As a program imports it.
 * @returns Folder for PYTHONPATH; the caller removes it.
 */
export async function pythonClient(packageName: string): Promise<string> {
  const jar = await cached(`openapi-generator-${GENERATOR}`, async (folder) => {
    const artifact = `org.openapitools:openapi-generator-cli:${GENERATOR}`;
    const copy = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy";
    await mustRun("mvn", ["-B", "-q", copy, `-Dartifact=${artifact}`, `-DoutputDirectory=${folder}`]);
  });
  const folder = await mkdtemp(join(tmpdir(), "lab-client-"));
  try {
    const generator = join(jar, `openapi-generator-cli-${GENERATOR}.jar`);
    const options = ["-i", DOCUMENT, "-g", "python", "--package-name", packageName, "-o", folder];
    await mustRun("java", ["-jar", generator, "generate", ...options]);
    const needs = await cached(`openapi-generator-${GENERATOR}-python`, async (target) => {
      await mustRun("pip", ["install", "-q", "--target", target, "-r", join(folder, "requirements.txt")]);
    });
    await cp(needs, folder, { recursive: true });
    return folder;
  } catch (error) {
    await rm(folder, { recursive: true, force: true });
    throw error;
  }
}
