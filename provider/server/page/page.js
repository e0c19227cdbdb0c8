// The status page: asks the server every two seconds while it is looked at. Whatever a guest or a caller has written is set as text.

const PERIOD_MILLISECONDS = 2000;
// The server looks at its host to answer this one.
const HEALTH_PERIOD_MILLISECONDS = 10_000;
const CONSOLE_LINES = 300;
const TOKEN = "microvm-token";

const states = {
  RUNNING: "good",
  CREATING: "warn",
  REMOVING: "warn",
  PAUSED: "warn",
  STOPPED: "",
  UNREACHABLE: "bad",
};
const evidences = {
  proved: ["proved", "the guest has shown that it runs on this root"],
  restored: ["restored", "shown before the snapshot that it was restored from"],
  none: ["none yet", "the guest has shown nothing so far"],
};

const element = (id) => document.getElementById(id);
const rows = document.querySelector("#vms tbody");

let chosen = new URLSearchParams(location.hash.slice(1)).get("vm") ?? "";
let timer;
let healthAt = -Infinity;

/** The server's answer, as JSON; the error says why there is none. */
async function ask(path) {
  const token = sessionStorage.getItem(TOKEN);
  const headers = token === null ? {} : { authorization: `Bearer ${token}` };
  const answer = await fetch(path, { headers, signal: AbortSignal.timeout(10_000) });
  if (answer.ok) return await answer.json();
  const body = await answer.json().catch(() => undefined);
  const error = new Error(body?.error?.message ?? `the server answers with status ${answer.status}`);
  error.status = answer.status;
  throw error;
}

async function refresh() {
  clearTimeout(timer);
  try {
    const { vms } = await ask("/v1/vms");
    showVms(vms ?? []);
    await Promise.all([showHealth(), showDetail(vms ?? [])]);
    tellTrouble(undefined);
  } catch (error) {
    if (error.status === 401) askForToken(error);
    else tellTrouble(`Nothing new from the server: ${error.message}`);
  }
  if (!document.hidden) timer = setTimeout(() => void refresh(), PERIOD_MILLISECONDS);
}

async function showHealth() {
  if (performance.now() - healthAt < HEALTH_PERIOD_MILLISECONDS) return;
  healthAt = performance.now();
  const host = element("host");
  try {
    const { server } = await ask("/v1/health");
    host.textContent = server ?? "healthy";
    host.className = "health good";
  } catch (error) {
    host.textContent = error.message;
    host.className = "health bad";
  }
}

function showVms(vms) {
  element("access").hidden = true;
  element("vms").hidden = vms.length === 0;
  element("none").hidden = vms.length !== 0;
  const running = vms.filter(({ status }) => status === "RUNNING").length;
  element("count").textContent = vms.length === 0 ? "" : `${running} of ${vms.length} running`;
  const known = new Map([...rows.children].map((row) => [row.dataset.name, row]));
  const wanted = vms.map((vm) => {
    const row = known.get(vm.vmName) ?? newRow(vm.vmName);
    fillRow(row, vm);
    return row;
  });
  // Rows that stay keep the focus.
  for (const row of known.values()) if (!wanted.includes(row)) row.remove();
  wanted.forEach((row, index) => {
    if (rows.children[index] !== row) rows.insertBefore(row, rows.children[index] ?? null);
  });
}

function newRow(name) {
  const row = document.createElement("tr");
  row.dataset.name = name;
  const head = document.createElement("th");
  head.scope = "row";
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = name;
  button.addEventListener("click", () => choose(chosen === name ? "" : name));
  head.append(button);
  row.append(head);
  for (const kind of ["state", "code", "", "code", "code"]) {
    const cell = document.createElement("td");
    cell.className = kind;
    row.append(cell);
  }
  return row;
}

function fillRow(row, vm) {
  const [, state, root, evidence, address, ports] = row.children;
  const isChosen = vm.vmName === chosen;
  row.className = isChosen ? "chosen" : "";
  row.querySelector("button").setAttribute("aria-expanded", String(isChosen));
  state.textContent = vm.status.toLowerCase();
  state.className = `state ${states[vm.status] ?? ""}`;
  root.textContent = vm.root ?? "";
  const [word, title] = evidences[vm.rootEvidence] ?? ["", ""];
  evidence.textContent = word;
  evidence.title = title;
  address.textContent = vm.ip ?? "";
  ports.textContent = (vm.portForwards ?? [])
    .map(
      ({ hostPort, guestPort, description }) =>
        `${hostPort} → ${guestPort}${description ? ` ${description}` : ""}`,
    )
    .join("\n");
}

function choose(name) {
  chosen = name;
  history.replaceState(null, "", name === "" ? location.pathname : `#${new URLSearchParams({ vm: name })}`);
  void refresh();
}

async function showDetail(vms) {
  const vm = vms.find(({ vmName }) => vmName === chosen);
  element("detail").hidden = vm === undefined;
  if (vm === undefined) return;
  element("detail-name").textContent = vm.vmName;
  element("cmdline").textContent = vm.cmdline ?? "";
  element("instance").textContent = vm.instance ?? "";
  const { lines } = await ask(`/v1/vms/${encodeURIComponent(vm.vmName)}/console?lines=${CONSOLE_LINES}`);
  if (chosen !== vm.vmName) return;
  const screen = element("console");
  const text = lines.join("\n");
  if (screen.textContent === text) return;
  const isAtEnd = screen.scrollHeight - screen.scrollTop - screen.clientHeight < 40;
  screen.textContent = text;
  if (isAtEnd) screen.scrollTop = screen.scrollHeight;
}

function tellTrouble(text) {
  element("trouble").hidden = text === undefined;
  element("trouble").textContent = text ?? "";
}

function askForToken({ message }) {
  const isWrong = sessionStorage.getItem(TOKEN) !== null;
  sessionStorage.removeItem(TOKEN);
  healthAt = -Infinity;
  element("access").hidden = false;
  element("host").textContent = "closed";
  element("host").className = "health warn";
  tellTrouble(isWrong ? message : undefined);
}

element("access").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(TOKEN, element("token").value.trim());
  element("token").value = "";
  void refresh();
});
element("close").addEventListener("click", () => choose(""));
document.addEventListener("visibilitychange", () => void (document.hidden ? clearTimeout(timer) : refresh()));
void refresh();
