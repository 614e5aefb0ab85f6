#!/bin/bash
# On every machine, with the same HOST:PORT, then nodes, processes on each, and the run's options.
endpoint=$1
nodes=$2
processes=$3
shift 3
# A process that was killed leaves addresses in torchrun's store, on which its successor would trip.
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
# Without --signals-to-handle a SIGUSR1 would end torchrun and leave the training processes to
# notice. Stopped by a signal, torchrun itself leaves with 1, once they have saved.
exec torchrun --nnodes "$nodes" --nproc-per-node "$processes" --rdzv-backend c10d \
  --rdzv-endpoint "$endpoint" --rdzv-id adios-tme --max-restarts 3 \
  --signals-to-handle SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1 \
  --no-python adios-tme train "$@"
