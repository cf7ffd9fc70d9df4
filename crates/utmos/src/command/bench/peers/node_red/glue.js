// Node-RED's function node "match by tid". What waits for a reply is in memory, and nowhere else.
const waiting = context.get('waiting');
if (msg.req) {
    const { device_id, command_type, payload } = msg.payload;
    const tid = RED.util.generateId();
    waiting.set(tid, msg);
    const command = { tid, bid: tid, timestamp: Date.now(), method: command_type, data: payload };
    return [{ topic: `thing/product/${device_id}/services`, payload: command }, null];
}
const { tid, data } = msg.payload;
const asked = waiting.get(tid);
if (!asked) {
    return null;
}
waiting.delete(tid);
asked.payload = { command_id: tid, result: data.result };
return [null, asked];
