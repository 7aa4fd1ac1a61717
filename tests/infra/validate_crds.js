// Checks custom resources by the schemas of the packages @kubernetes-models/*, and finds the fields that these do not
// know, which they themselves let pass and an API server would drop.
//
// On stdin: a JSON array of resources. On stdout: a JSON array of what is wrong, each {"index", "message"}. A kind without
// a schema is wrong. Fields are known by what a validator reads: it asks an object for each property that its schema has,
// and lists the keys of those whose keys are free. Exits with 2 where the packages are not installed.
"use strict";

const path = require("path");

const modules = path.resolve(process.argv[2] || "node_modules");
const PACKAGES = {
  "gateway.networking.k8s.io": ["gateway-api"],
  "keda.sh": ["keda"],
  "security.istio.io": ["istio"],
  "kustomize.toolkit.fluxcd.io": ["flux-cd"],
  "source.toolkit.fluxcd.io": ["flux-cd"],
  // Azure's copy of the Prometheus operator's kinds, under a group of its own.
  "azmonitoring.coreos.com": ["prometheus-operator", "monitoring.coreos.com"],
};
// The packages know these kinds under an earlier version, whose fields are the same as far as we use them.
const EARLIER = {
  "gateway.networking.k8s.io/v1 GRPCRoute": "gateway.networking.k8s.io/v1alpha2",
  "security.istio.io/v1 PeerAuthentication": "security.istio.io/v1beta1",
  "source.toolkit.fluxcd.io/v1 Bucket": "source.toolkit.fluxcd.io/v1beta2",
};

// Fields that came after the packages' version, Gateway API 1.0. What they hold is checked by tests of their own.
const LATER = {
  "gateway.networking.k8s.io/v1 Gateway": ["/spec/infrastructure/parametersRef"],
};

function schemaOf(resource) {
  const asked = `${resource.apiVersion} ${resource.kind}`;
  const [group, version] = (EARLIER[asked] || resource.apiVersion).split("/");
  const [name, folder] = PACKAGES[group] || [];
  if (name === undefined) return null;
  try {
    const kinds = require(path.join(modules, "@kubernetes-models", name, folder || group, version || ""));
    return kinds[resource.kind] || null;
  } catch (error) {
    if (error.code === "MODULE_NOT_FOUND") return null;
    throw error;
  }
}

function watched(value, where, read) {
  if (value === null || typeof value !== "object") return value;
  return new Proxy(value, {
    get(target, key) {
      const found = target[key];
      if (typeof key !== "string" || typeof found === "function") return found;
      read.add(`${where}/${key}`);
      return watched(found, `${where}/${key}`, read);
    },
    ownKeys(target) {
      read.add(`${where}/*`);
      return Reflect.ownKeys(target);
    },
  });
}

function unread(value, where, read) {
  if (value === null || typeof value !== "object") return [];
  return Object.keys(value).flatMap((key) => {
    const here = `${where}/${key}`;
    if (read.has(here)) return unread(value[key], here, read);
    return Array.isArray(value) || read.has(`${where}/*`) ? [] : [here];
  });
}

function problems(resource) {
  const kind = schemaOf(resource);
  if (kind === null) return [`no schema for ${resource.apiVersion} ${resource.kind}`];
  const checked = { ...resource, apiVersion: kind.apiVersion };
  const read = new Set();
  const model = watched(Object.assign(Object.create(kind.prototype), checked), "", read);
  try {
    kind.prototype.validate.call(model);
  } catch (error) {
    return [`does not fit its schema: ${error.message}`];
  }
  const later = LATER[`${resource.apiVersion} ${resource.kind}`] || [];
  const unknown = unread(checked, "", read).filter((where) => !later.includes(where));
  return unknown.map((where) => `has the field ${where}, which its schema does not know`);
}

let text = "";
process.stdin.on("data", (chunk) => (text += chunk));
process.stdin.on("end", () => {
  try {
    require.resolve(path.join(modules, "@kubernetes-models", "gateway-api", "package.json"));
  } catch {
    process.stderr.write(`no @kubernetes-models in ${modules}\n`);
    process.exit(2);
  }
  const found = JSON.parse(text).flatMap((resource, index) => problems(resource).map((message) => ({ index, message })));
  process.stdout.write(JSON.stringify(found) + "\n");
});
