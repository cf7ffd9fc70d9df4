// An IoT agent of FIWARE's library for docks: a command of the context broker goes to MQTT, and the dock's reply back as its
// result. Registry in memory. Arguments: folder of the packages, own port, broker's host and port, context broker's port.
const [modules, port, brokerHost, brokerPort, contextPort] = process.argv.slice(2);
const need = require('module').createRequire(modules + '/');
const agent = need('iotagent-node-lib');
const [SERVICE, SUBSERVICE, COMMAND] = ['bench', '/docks', 'services'];
const options = { qos: 1 };

const mqtt = need('mqtt').connect(`mqtt://${brokerHost}:${brokerPort}`);
mqtt.subscribe('thing/product/+/services_reply', options);
mqtt.on('message', (topic, bytes) => {
    const { tid, data } = JSON.parse(bytes);
    agent.getDevice(topic.split('/')[2], undefined, SERVICE, SUBSERVICE, (error, device) => {
        if (error) {
            return console.error(error);
        }
        const [info, status] = [`${tid} ${data.result}`, data.result === 0 ? 'OK' : 'ERROR'];
        agent.setCommandResult(device.name, '', device.apikey, COMMAND, info, status, device, (error) => {
            if (error) {
                console.error(error);
            }
        });
    });
});

function command(id, type, service, subservice, attributes, callback) {
    const { tid, method, data } = attributes[0].value;
    const message = JSON.stringify({ tid, bid: tid, timestamp: Date.now(), method, data });
    mqtt.publish(`thing/product/${id}/services`, message, options);
    callback(null, { id, type, [COMMAND]: { type: 'command', value: '' } });
}

const config = {
    logLevel: 'FATAL',
    contextBroker: { host: '127.0.0.1', port: contextPort, ngsiVersion: 'v2' },
    server: { host: '127.0.0.1', port },
    deviceRegistry: { type: 'memory' },
    types: { Dock: { commands: [{ name: COMMAND, type: 'command' }], lazy: [], active: [] } },
    service: SERVICE,
    subservice: SUBSERVICE,
    providerUrl: `http://127.0.0.1:${port}`,
    deviceRegistrationDuration: 'P1M',
    defaultType: 'Dock'
};
agent.activate(config, (error) => {
    if (error) {
        console.error(error);
        process.exit(1);
    }
    agent.setCommandHandler(command);
});
