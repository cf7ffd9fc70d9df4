// Sends what is written at once. The peers' MQTT client leaves Nagle's algorithm on, which makes every message that follows a
// confirmation wait some 40 ms where little is on its way.
const { Socket } = require('net');
const connect = Socket.prototype.connect;
Socket.prototype.connect = function (...where) {
    this.setNoDelay(true);
    return connect.apply(this, where);
};
