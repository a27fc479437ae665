"""A first stream: estimates of a wav file, as the README shows."""

import sys, wave; sys.path.insert(0, "generated")
import grpc
from undertone.v1 import emotion_pb2 as e, emotion_service_pb2 as u, emotion_service_pb2_grpc as service

def requests(wav):                                    # 16-bit PCM, any rate from 8 to 48 kHz
    audio = u.AudioFormat(encoding="AUDIO_ENCODING_LINEAR16", sample_rate_hz=wav.getframerate(),
                          channel_count=wav.getnchannels())
    yield u.StreamEmotionRequest(config=u.StreamConfig(audio=audio))
    while chunk := wav.readframes(wav.getframerate() // 10):
        yield u.StreamEmotionRequest(audio=u.AudioChunk(data=chunk))

stub = service.EmotionServiceStub(grpc.insecure_channel("localhost:50051"))
for response in stub.StreamEmotion(requests(wave.open(sys.argv[1]))):
    if response.HasField("estimate") and not response.estimate.abstains:
        a = response.estimate.affect
        print(f"{response.estimate.end.ToTimedelta()}  {e.Emotion.Name(a.top)} {a.confidence:.2f}")
