// SPDX-License-Identifier: Apache-2.0
// A worker in Java that speaks the worker protocol with single-frame requests and answers, so that
// tests can freeze and restore a JVM: many threads, a heap of its own kind, a compiler at work.

import java.io.DataInputStream;
import java.io.FileDescriptor;
import java.io.FileInputStream;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.OutputStream;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.util.HashMap;
import java.util.Map;
import java.util.concurrent.atomic.AtomicLong;

public final class Worker {
    private static final int HELLO = 1, INIT = 2, READY = 3, REQUEST = 4, RESPONSE = 5, PING = 11,
            PONG = 12, DRAIN = 13, CHECKPOINT = 14, RESTORED = 15;
    private static final int FIN = 1;

    private final DataInputStream in;
    private final OutputStream out;
    private final Map<Integer, String> table = new HashMap<>();
    private final AtomicLong beats = new AtomicLong();
    private long served;

    private Worker(FileDescriptor channel) {
        in = new DataInputStream(new FileInputStream(channel));
        out = new FileOutputStream(channel);
    }

    public static void main(String[] args) throws Exception {
        var make = FileDescriptor.class.getDeclaredConstructor(int.class);
        make.setAccessible(true);
        new Worker(make.newInstance(3)).run();
    }

    private void run() throws Exception {
        send(HELLO, 0, 0, "{\"protocol\":1,\"runtime\":\"jvm\",\"runtimeVersion\":\"17\"}".getBytes());
        for (;;) {
            byte[] head = new byte[12];
            in.readFully(head);
            ByteBuffer h = ByteBuffer.wrap(head).order(ByteOrder.LITTLE_ENDIAN);
            byte[] payload = new byte[h.getInt(0)];
            in.readFully(payload);
            hear(h.get(4), h.getInt(8), payload);
        }
    }

    private void hear(int type, int stream, byte[] payload) throws Exception {
        switch (type) {
            case INIT:
                begin();
                send(READY, 0, 0, "{\"initMs\":1}".getBytes());
                break;
            case REQUEST:
                send(RESPONSE, FIN, stream, answer());
                break;
            case PING:
                send(PONG, 0, 0, payload);
                break;
            case CHECKPOINT:
                System.gc();
                send(CHECKPOINT, 0, 0, "{}".getBytes());
                break;
            case RESTORED:
                send(READY, 0, 0, "{\"initMs\":0}".getBytes());
                break;
            case DRAIN:
                System.exit(0);
                break;
            default:
                break;
        }
    }

    /** What makes an init slow: a big table, and a thread that goes on by itself. */
    private void begin() {
        for (int i = 0; i < 300_000; i++) {
            table.put(i, "value " + i);
        }
        Thread beat = new Thread(() -> {
            for (;;) {
                beats.incrementAndGet();
                try {
                    Thread.sleep(1);
                } catch (InterruptedException e) {
                    return;
                }
            }
        });
        beat.setDaemon(true);
        beat.start();
    }

    private byte[] answer() throws InterruptedException {
        long before = beats.get();
        byte[][] garbage = new byte[200][];
        for (int i = 0; i < garbage.length; i++) {
            garbage[i] = new byte[100_000];
            for (byte b : garbage[i]) {
                if (b != 0) {
                    throw new IllegalStateException("a new array is not zero");
                }
            }
        }
        while (beats.get() == before) {
            Thread.sleep(1);
        }
        String json = String.format("{\"served\":%d,\"entries\":%d,\"sample\":\"%s\",\"now\":%d}",
                ++served, table.size(), table.get(123_456), System.currentTimeMillis());
        byte[] body = json.getBytes(StandardCharsets.UTF_8);
        ByteBuffer response = ByteBuffer.allocate(8 + body.length);
        return response.put(new byte[8]).put(body).array();
    }

    private void send(int type, int flags, int stream, byte[] payload) throws IOException {
        ByteBuffer frame = ByteBuffer.allocate(12 + payload.length).order(ByteOrder.LITTLE_ENDIAN);
        frame.putInt(payload.length).put((byte) type).put((byte) flags).putShort((short) 0);
        frame.putInt(stream).put(payload);
        out.write(frame.array());
    }
}
