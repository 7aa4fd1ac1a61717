// Starts the Cosmos DB emulator of npm's @vercel/cosmosdb-server over HTTPS, mended where it differs from Cosmos DB in
// what the document adapter relies on. Prints its URL as one line of JSON. Ends when its standard input closes, so that
// it never outlives the tests that started it.
//
// node cosmos_start.js <node_modules> <certificate.pem> <key.pem>

"use strict";

const fs = require("fs");
const path = require("path");

const [modules, certificate, key] = process.argv.slice(2);
if (!modules || !certificate || !key) {
  console.error("usage: node cosmos_start.js <node_modules> <certificate.pem> <key.pem>");
  process.exit(2);
}
const library = path.resolve(modules, "@vercel/cosmosdb-server", "lib");

// A point read of an absent document: Cosmos DB answers 404; the emulator reads a field of undefined and answers 500.
// This must be in place before the library's routes take the handler.
const { parsePartitionKey } = require(path.join(library, "utils", "get-partition-from-header"));
const readDocument = require(path.join(library, "handler", "read-document"));
const readPresent = readDocument.default;
readDocument.default = (account, request, response, params) => {
  const collection = account.database(params.dbId).collection(params.collId);
  const header = request.headers["x-ms-documentdb-partitionkey"];
  if (collection.read() && header) {
    const partition = parsePartitionKey(header, params.docId);
    if (!collection.document(params.docId, partition).read()) {
      response.statusCode = 404;
      return { code: "NotFound", message: "Entity with the specified id does not exist in the system." };
    }
  }
  return readPresent(account, request, response, params);
};

const { createHttpsServer } = require(library);
const server = createHttpsServer({ cert: fs.readFileSync(certificate), key: fs.readFileSync(key) });
server.listen(0, "127.0.0.1", () => {
  console.log(JSON.stringify({ url: `https://127.0.0.1:${server.address().port}` }));
});
process.stdin.on("end", () => process.exit(0));
process.stdin.resume();
