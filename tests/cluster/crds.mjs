// Checks objects of custom kinds against models of them: crds.mjs FOLDER_OF_NODE_MODULES FILE…, each file a JSON list.
// A kind that no model knows is a failure.
import fs from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";

const PACKAGES = {
  "cert-manager.io": "cert-manager",
  "gateway.networking.k8s.io": "gateway-api",
  "monitoring.coreos.com": "prometheus-operator",
};

const [folder, ...files] = process.argv.slice(2);
let checked = 0;
let failed = 0;
for (const file of files) {
  for (const object of JSON.parse(fs.readFileSync(file, "utf8"))) {
    const [group, version] = object.apiVersion.split("/");
    const name = `${file}: ${object.apiVersion} ${object.kind} ${object.metadata?.name}`;
    const model = path.join(folder, "node_modules/@kubernetes-models", PACKAGES[group] ?? "-", group, version ?? "-");
    const module = [".mjs", ".js"].map((end) => path.join(model, object.kind + end)).find((file) => fs.existsSync(file));
    try {
      if (!module) throw new Error("no model knows it");
      const Model = (await import(pathToFileURL(module)))[object.kind];
      new Model(object).validate();
      checked += 1;
    } catch (error) {
      failed += 1;
      console.log(`${name}: ${error.message}`);
    }
  }
}
console.log(`custom resources: ${checked} right, ${failed} wrong`);
process.exit(failed ? 1 : 0);
